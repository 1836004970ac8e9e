export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-RE4A25KX.mjs";
