export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-WEGT3IM6.mjs";
