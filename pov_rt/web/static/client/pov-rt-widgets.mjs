export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-7B8ET7AR.mjs";
