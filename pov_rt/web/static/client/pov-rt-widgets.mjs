export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-PFPT4UQ8.mjs";
